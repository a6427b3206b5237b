"""The OpenAPI page: what it says holds for requests that are made of it."""

from __future__ import annotations

import pytest
from serving import GOLDEN, Process, golden, run, serving

from ostinato_learn.serve.app import SCHEMAS


def test_every_address_is_described():
    async def test():
        async with serving(golden("gru")) as client:
            page = (await client.get("/openapi.json")).json()
            assert page["openapi"].startswith("3.1")
            assert set(SCHEMAS) <= page["components"]["schemas"].keys()
            operations = [each for path in page["paths"].values() for each in path.values()]
            assert len(operations) > 20 and all(each["summary"] for each in operations)

    run(test())


@pytest.fixture(scope="module")
def server():
    with Process(str(GOLDEN / "gru"), str(GOLDEN / "language"), "--quiet") as process:
        yield process


@pytest.mark.slow
@pytest.mark.process
def test_requests_made_of_the_page_are_answered_as_it_says(server):
    """No 5xx, no answer that the page does not describe; names of models and sessions included."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    statuses = set()

    def tried(operation, names):
        @settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
        @given(case=operation.as_strategy())
        def test(case):
            own = case.path_parameters
            own.update({name: value for name, value in names.items() if name in own})
            statuses.add(case.call_and_validate(checks=wanted, timeout=20).status_code)

        test()

    for found in schema.get_all_operations():
        operation = found.ok()
        if not operation.path.endswith("/events"):  # which has no end
            tried(operation, {})
            tried(operation, {"model": "gru", "session": "a", "version": "1"})
    assert {200, 201, 400, 404} <= statuses
    assert server.client.get(f"{server.url}/v2/health/ready").status_code == 200
