"""The demo: it starts a service that embeds photographs or the user's own folder. It is not part of the wheel."""
