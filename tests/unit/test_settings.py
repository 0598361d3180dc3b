"""The API key: it fits a header, and nothing prints it."""

import pytest

from serve_app.config import Settings, SettingsError


@pytest.mark.parametrize("key", ["secret\n", " secret", "se\ncret", "sec\x00ret"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key):
    """A key that was read from a file with its last newline locked everyone out without a word."""
    with pytest.raises(SettingsError, match="api_key") as refused:
        Settings.from_environment({"CONSTELLATE_API_KEY": key})
    assert "ret" not in str(refused.value).replace("character", "")


def test_the_key_is_not_in_the_text_of_the_settings():
    settings = Settings(api_key="hunter2")
    assert "hunter2" not in f"{settings!r} {settings}"
