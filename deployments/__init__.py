"""The thin Ray shell: each module puts one part of `serve_app` into an actor or a Serve deployment."""
