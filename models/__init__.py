"""The core: what is decided, and when. No Kafka, no Faust, no asyncio, no clock, no environment."""
