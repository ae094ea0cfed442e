-- The role that workers connect as: it reads and writes what they need and can do nothing else. It makes, changes and drops no table,
-- deletes no row, and only adds to the audit.
--
-- Run it in the project's database as a role that may create roles, after every `early-kill migrate`, which another role does, the
-- owner of the tables; so does `early-kill purge`, which deletes.
--   psql -d early_kill -f deploy/postgres-roles.sql
--   psql -d early_kill -c '\password early_kill_worker'

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'early_kill_worker') THEN
        CREATE ROLE early_kill_worker LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
    END IF;
END $$;
ALTER ROLE early_kill_worker SET search_path = public, pg_temp;
GRANT USAGE ON SCHEMA public TO early_kill_worker;

REVOKE ALL ON variant_monitoring, variant_pool, scheduled_post, monitoring_audit, outbound_call FROM early_kill_worker;
GRANT SELECT, INSERT, UPDATE ON variant_monitoring, outbound_call TO early_kill_worker;
GRANT SELECT, INSERT ON monitoring_audit TO early_kill_worker;
GRANT SELECT, UPDATE (status, killed_at, kill_id, updated_at) ON variant_pool TO early_kill_worker;
GRANT SELECT, UPDATE (status, cancelled_at, cancel_reason, updated_at) ON scheduled_post TO early_kill_worker;
