"""Every exception of ours survives the way between processes."""

import importlib
import inspect
import pickle
import pkgutil
import types

import pytest

import constellate
import deployments
import serve_app

WRAPPED = {
    "JobFailed": (types.SimpleNamespace(job_id="j", message="gone", status="error"),),
    "Refused": (503, {"detail": "later", "code": "unavailable"}),
}


def exceptions():
    found = set()
    for package in (constellate, deployments, serve_app):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            members = vars(importlib.import_module(module.name)).values()
            found |= {
                c
                for c in members
                if inspect.isclass(c) and issubclass(c, Exception) and c.__module__.startswith(package.__name__)
            }
    return sorted(found, key=lambda found: (found.__module__, found.__qualname__))


@pytest.mark.parametrize("error_class", exceptions(), ids=lambda c: f"{c.__module__}.{c.__qualname__}")
def test_an_error_is_the_same_after_pickling(error_class):
    has_own = inspect.isfunction(error_class.__init__)
    parameters = inspect.signature(error_class.__init__).parameters.values() if has_own else []
    parameters = list(parameters)[1:]
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    args = WRAPPED.get(error_class.__name__) or tuple({"message": p.name, "job": p.name} for p in needed) or ("gone",)

    error = error_class(*args)
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
