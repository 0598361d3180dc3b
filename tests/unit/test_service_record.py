import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from serve_app.service_record import FILE_NAME, ServiceRecord


@pytest.fixture
def mine():
    return ServiceRecord.of_this_process(url="http://127.0.0.1:8000", ray_address="127.0.0.1:6379")


def test_a_record_of_a_living_process_is_read_back(tmp_path, mine):
    mine.write(tmp_path / "data")
    assert ServiceRecord.read(tmp_path / "data") == mine
    assert mine.pid == os.getpid()
    assert set(json.loads((tmp_path / "data" / FILE_NAME).read_text())) >= {"pid", "url", "ray_address", "started_at"}


def test_a_pid_that_now_belongs_to_another_process_is_not_taken_for_the_service(tmp_path, mine):
    replace(mine, process_mark="of an earlier process").write(tmp_path)
    assert ServiceRecord.read(tmp_path) is None


def test_a_record_of_a_dead_process_is_ignored(tmp_path, mine):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    replace(mine, pid=dead.pid).write(tmp_path)
    assert ServiceRecord.read(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"pid": 1}', "\x00"], ids=["empty", "list", "no keys", "few keys", "NUL"]
)
def test_a_damaged_record_is_ignored(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    assert ServiceRecord.read(tmp_path) is None


def test_no_record_is_no_service(tmp_path):
    assert ServiceRecord.read(tmp_path) is None


def test_removing_leaves_the_record_of_a_later_service_alone(tmp_path, mine):
    mine.write(tmp_path)
    replace(mine, url="http://127.0.0.1:1", pid=os.getpid()).remove(tmp_path)
    assert ServiceRecord.read(tmp_path) == mine
    mine.remove(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()
