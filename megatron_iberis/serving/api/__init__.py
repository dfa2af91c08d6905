"""`iberis serve`: an HTTP server that speaks as OpenAI's does, around one engine on one thread."""
