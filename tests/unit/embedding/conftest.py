import pytest

from serve_app.embedding import converter, ir_cache
from tests.tiny_models import make_tiny_family
from tests.unit.embedding.towers import MODELS, load


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


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    made = {}

    def checkpoint(name):
        family = name.partition("?")[0]
        if family not in made:
            made[family] = make_tiny_family(folder / family, family)
        return made[family]

    return checkpoint


@pytest.fixture(scope="session")
def models(checkpoints):
    loaded = {}

    def model(name):
        if name not in loaded:
            loaded[name] = load(checkpoints(name), name=f"tiny{MODELS[name]}")
        return loaded[name]

    return model
