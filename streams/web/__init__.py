"""The HTTP API, the page for people and the metrics, on Faust's own web server."""
