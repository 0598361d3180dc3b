"""The demo: a service of its own embeds photographs that ship with it, or a folder of the user's. Not in the wheel."""
