import pytest

from serve_app.config import Settings
from serve_app.policy import FURTHER_MODELS, N_SMALL_ACTORS, SMALL_ACTOR_CPUS, Policy

SLOW_TO_FAST = [(1, 0), (2, 0), (64, 0), (4, 1)]
"""(CPUs, GPUs) of machines."""


def settings(**values: object) -> Settings:
    return Settings.from_environment({}, **values)


@pytest.mark.parametrize("n_cpus", [1, 2, 4, 8, 64])
def test_every_replica_two_further_models_and_the_small_actors_fit_the_machine(n_cpus: int):
    policy = Policy.choose(settings(), n_cpus=n_cpus, n_gpus=0)
    beside = max(FURTHER_MODELS, policy.min_replicas)
    claimed = (policy.max_replicas + beside) * policy.cpus_per_replica + N_SMALL_ACTORS * SMALL_ACTOR_CPUS
    assert claimed <= n_cpus + 1e-9


@pytest.mark.parametrize("n_cpus", [2, 8])
def test_one_replica_a_core_with_one_thread_each_on_cpu(n_cpus: int):
    policy = Policy.choose(settings(), n_cpus=n_cpus, n_gpus=0)
    assert (policy.max_replicas, policy.compute_threads) == (n_cpus, 1)


def test_fewer_replicas_get_more_threads():
    policy = Policy.choose(settings(max_replicas=2), n_cpus=8, n_gpus=0)
    assert (policy.max_replicas, policy.compute_threads) == (2, 4)


@pytest.mark.parametrize(("share", "replicas"), [(None, 4), (1.0, 4), (0.5, 8), (2.0, 2)])
def test_gpu_shares_decide_the_number_of_replicas(share: float | None, replicas: int):
    policy = Policy.choose(settings(gpus_per_replica=share), n_cpus=32, n_gpus=4)
    assert policy.max_replicas == replicas
    assert policy.gpus_per_replica == (share or 1.0)


def test_device_cpu_ignores_the_gpus():
    assert Policy.choose(settings(device="cpu"), n_cpus=4, n_gpus=4).gpus_per_replica == 0


def test_a_request_that_waits_is_as_large_as_the_machine_is_fast():
    sizes = [Policy.choose(settings(), n_cpus=n_cpus, n_gpus=n_gpus).request_images for n_cpus, n_gpus in SLOW_TO_FAST]
    assert sizes == [32, 64, 999, 999]


@pytest.mark.parametrize("n_gpus", [0, 1, 8])
def test_the_window_asks_for_every_replica_the_bound_allows(n_gpus: int):
    policy = Policy.choose(settings(), n_cpus=16, n_gpus=n_gpus)
    assert policy.window / policy.target_ongoing > policy.max_replicas - 1
    assert policy.batch_images >= policy.chunk_images


def test_gpus_that_are_still_to_come_are_counted_on_when_both_settings_say_so():
    policy = Policy.choose(Settings(device="cuda", gpus_per_replica=1, max_replicas=8), n_cpus=4, n_gpus=0)
    assert (policy.max_replicas, policy.gpus_per_replica, policy.batch_images) == (8, 1.0, 128)
    assert Policy.choose(Settings(device="cuda", max_replicas=8), n_cpus=4, n_gpus=0).gpus_per_replica == 0


def test_no_share_of_a_gpu_means_the_policy_of_a_cpu():
    """With a share of 0, 32 cores and 4 GPUs got four replicas of one thread each."""
    settings = Settings(gpus_per_replica=0)
    assert Policy.choose(settings, n_cpus=32, n_gpus=4) == Policy.choose(settings, n_cpus=32, n_gpus=0)


@pytest.mark.parametrize("n_cpus", [1, 2, 64])
def test_every_replica_of_one_machine_without_gpus_stays(n_cpus: int):
    """An idle service went down to one replica, and the next one came when much of a job was done."""
    policy = Policy.choose(settings(), n_cpus=n_cpus, n_gpus=0)
    assert policy.min_replicas == policy.initial_replicas == policy.max_replicas == n_cpus


@pytest.mark.parametrize(("n_gpus", "n_nodes", "at_the_start"), [(4, 1, 1), (4, 2, 1), (0, 2, 4), (0, 5, 4)])
def test_one_replica_stays_where_others_cost_a_gpu_or_a_node(n_gpus: int, n_nodes: int, at_the_start: int):
    policy = Policy.choose(settings(), n_cpus=16, n_gpus=n_gpus, n_nodes=n_nodes)
    assert (policy.min_replicas, policy.initial_replicas) == (1, at_the_start)


@pytest.mark.parametrize(("n_gpus", "n_nodes"), [(0, 1), (0, 3), (8, 1), (8, 3)])
@pytest.mark.parametrize(("wanted", "stay"), [(1, 1), (3, 3), (8, 8), (9, 8)])
def test_the_setting_says_how_many_stay_up_to_the_upper_bound(n_gpus: int, n_nodes: int, wanted: int, stay: int):
    chosen = settings(min_replicas=wanted, max_replicas=8)
    policy = Policy.choose(chosen, n_cpus=16, n_gpus=n_gpus, n_nodes=n_nodes)
    assert policy.min_replicas == stay <= policy.initial_replicas <= policy.max_replicas
