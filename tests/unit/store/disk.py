"""Files rebuilt from recorded operations: what a dead process, or a dead machine, leaves on the disk."""

from tests.unit.store.tracing import Operation


class Disk:
    """The contents of files as their process sees them, and as they last were forced to the disk."""

    def __init__(self):
        self.seen: dict[str, bytes] = {}
        self.forced: dict[str, bytes] = {}
        self.waiting: list[Operation] = []
        """Writes since their file was last forced."""

    def apply(self, operation):
        """One operation takes place."""
        path = operation.path
        if operation.call == "unlink":
            self.seen.pop(path, None)
            self.forced.pop(path, None)
            self.waiting = [other for other in self.waiting if other.path != path]
        elif operation.call == "rename":
            for files in (self.seen, self.forced):
                files[operation.data.decode()] = files.pop(path)
        elif operation.call == "fdatasync":
            self.forced[path] = self.seen.get(path, b"")
            self.waiting = [other for other in self.waiting if other.path != path]
        else:
            self.seen[path] = written(self.seen.get(path, b""), operation)
            self.waiting.append(operation)

    def after_power_loss(self, kept):
        """The files when, of the writes since the last force, only these reached the disk."""
        files = dict(self.forced)
        for operation in kept:
            files[operation.path] = written(files.get(operation.path, b""), operation)
        return files


def written(content, operation):
    """A file's content after a write; without an offset it appends."""
    start = len(content) if operation.offset is None else operation.offset
    return content[:start].ljust(start, b"\0") + operation.data + content[start + len(operation.data) :]
