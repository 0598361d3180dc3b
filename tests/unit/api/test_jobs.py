import pytest


async def test_a_job_is_listed_and_found_with_the_fields_of_the_contract(client, embedded):
    [job] = (await client.get("/jobs")).json()
    assert (await client.get(f"/jobs/{job['id']}")).json() == job
    assert job["dataset_id"] == embedded["id"]
    assert (job["kind"], job["status"]) == ("embed", "complete")
    assert (job["processed"], job["skipped"], job["total"]) == (5, 1, 5)
    assert job["message"]
    assert job["created_at"] <= job["finished_at"]


async def test_the_newest_jobs_come_first_and_no_more_than_asked_for(client, embedded):
    newest = (await client.post(f"/datasets/{embedded['id']}/embeddings/generate")).json()["job_id"]
    jobs = (await client.get("/jobs")).json()
    assert len(jobs) == 2
    assert jobs[0]["id"] == newest
    assert jobs[0]["finished_at"] is None
    assert (await client.get("/jobs", params={"limit": 1})).json() == jobs[:1]


@pytest.mark.parametrize("job_id", ["no-such-job", "'%20OR%201=1", "%00"])
async def test_an_unknown_job_is_not_found(client, job_id):
    answer = await client.get(f"/jobs/{job_id}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "job_not_found"
