import pytest

from serve_app.embedding import converter, ir_cache


@pytest.fixture(scope="session", autouse=True)
def _conversion_in_this_process():
    """Checkpoints are converted here, where PyTorch is loaded anyway: a process of its own takes seconds each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ir_cache,
            "_run_converter",
            lambda wanted, graph: converter.convert(wanted.directory, wanted.name, wanted.precision, graph),
        )
        yield
