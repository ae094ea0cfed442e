"""The shell: moves bytes between Kafka, PostgreSQL, HTTP and the core in ``models``."""
