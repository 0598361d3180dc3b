"""Ray that does not start: an error that says why, where Ray's own has no class."""

import pytest

from serve_app import main
from serve_app.errors import Unavailable


def test_ray_that_does_not_start_in_time_is_a_clear_error(monkeypatch):
    # What Ray 2.60 says, `ray/_private/node.py`.
    said = "The current node timed out during startup. This could happen because some of the raylet failed to startup."

    def init(**_):
        raise Exception(said)  # as Ray does

    monkeypatch.setattr(main.ray, "init", init)
    with pytest.raises(Unavailable, match="did not start within 30 s"):
        main._start_ray()


def test_other_errors_of_ray_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(main.ray, "init", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main._start_ray()
