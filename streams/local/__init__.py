"""Real Apache Kafka and PostgreSQL on this machine, without Docker, from packages alone."""
