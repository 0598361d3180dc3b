"""A Ray handle whose calls run in the test's own process."""

import pickle


class LocalHandle:
    """The handle of an actor or a deployment: what goes in and comes out is pickled, as between processes."""

    def __init__(self, deployed):
        self._deployed = deployed

    def __getattr__(self, name):
        return _Method(getattr(self._deployed, name))


class _Method:
    def __init__(self, method):
        self._method = method

    async def remote(self, *args):
        return pickle.loads(pickle.dumps(await self._method(*pickle.loads(pickle.dumps(args)))))
