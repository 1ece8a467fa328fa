"""The OpenAPI document and its page: every field and answer described, and truly."""

import copy
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema
import pytest

from indexd.api import openapi, schema_page
from indexd.api.structs import Error
from tests.answers import Described, described
from tests.conftest import Client, document

DOCUMENT: dict[str, Any] = described().document
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
FAILURES = [
    response
    for operation in OPERATIONS.values()
    for status, response in operation["responses"].items()
    if status >= "400" and "application/json" in response["content"]
]
SENTENCE = re.compile(r"[A-Z].*\w.* .*")
"""Words, and not only a name."""


def fields() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of every body and every query parameter, by its place."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for field, told in schema["properties"].items():
            yield f"{name}.{field}", told
    for (method, path), operation in OPERATIONS.items():
        for parameter in operation.get("parameters", []):
            yield f"{method} {path} ?{parameter['name']}", parameter


def valid(reference: str, value: Any) -> None:
    whole = {"$ref": reference, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def test_every_field_of_every_body_is_described_in_words() -> None:
    found = dict(fields())
    assert len(found) > 150
    assert [place for place, told in found.items() if not told.get("description")] == []


def test_every_type_and_every_route_is_described_in_words() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert SENTENCE.match(schema.get("description", "")), name
    for place, operation in OPERATIONS.items():
        assert SENTENCE.match(operation["summary"]), place
        assert operation["description"], place


def test_every_example_of_a_field_fits_the_field() -> None:
    for place, told in fields():
        schema = {**told.get("schema", told), "components": DOCUMENT["components"]}
        for example in [
            *told.get("examples", []),
            *([told["example"]] if "example" in told else []),
        ]:
            jsonschema.Draft202012Validator(schema).validate(example)
        assert place


def test_the_document_names_every_operation_once_and_groups_it_by_task() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))
    assert {
        *("Upsert", "Bulk", "Delete", "EmbedText", "Search", "Related", "Stats", "Retention"),
        *("RetentionPreview", "DecayPreview", "Forget", "Audit", "Document", "Lifecycle"),
        *("Irrelevant", "Feedback", "Health", "Ready", "Metrics"),
    } <= set(names)
    tasks = {tag["name"] for tag in DOCUMENT["tags"]}
    assert tasks == {"Store", "Find", "Fade", "Forget", "Look", "Operate"}
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} == tasks


def test_the_body_of_every_failure_is_the_one_error() -> None:
    assert len(FAILURES) > 80
    for response in FAILURES:
        assert response["content"] == {
            "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
        }
        assert response["x-codes"]
    described_fields = DOCUMENT["components"]["schemas"]["Error"]["properties"]
    assert set(described_fields) == set(Error.__struct_fields__)


@pytest.mark.parametrize(
    ("place", "statuses"),
    [
        (("POST", "/index/upsert"), "200 400 401 403 413 415 429 503"),
        (("POST", "/index/bulk"), "200 401 403 415 429 503"),
        (("POST", "/index/search"), "200 400 401 413 415 429 503"),
        (("POST", "/index/forget"), "200 400 401 403 404 409 413 415 429 503"),
        (("POST", "/embed/text"), "200 400 401 403 413 415 422 429 503"),
        (("GET", "/index/document"), "200 400 401 404 429 503"),
        (("GET", "/index/stats"), "200 401 429 503"),
        (("GET", "/healthz"), "200"),
        (("GET", "/readyz"), "200 503"),
    ],
)
def test_a_route_lists_the_statuses_that_it_can_answer_with(
    place: tuple[str, str], statuses: str
) -> None:
    assert set(statuses.split()) <= set(OPERATIONS[place]["responses"])


def test_a_status_that_asks_to_wait_says_how_long() -> None:
    for place, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            headers = response["headers"]
            assert ("Retry-After" in headers) == (status in ("429", "503")), (place, status)
            assert ("WWW-Authenticate" in headers) == (status == "401"), (place, status)
            assert "X-Request-ID" in headers


def test_a_route_says_which_key_it_needs() -> None:
    assert DOCUMENT["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    security = {place: operation["security"] for place, operation in OPERATIONS.items()}
    assert security["GET", "/healthz"] == security["GET", "/readyz"] == []
    assert security["POST", "/index/search"] == [{"key": ["read"]}]
    assert security["POST", "/index/upsert"] == [{"key": ["write"]}]
    assert security["POST", "/index/forget"] == [{"key": ["admin"]}]
    assert security["GET", "/metrics"] == [{"key": ["read"]}, {}]
    for place, operation in OPERATIONS.items():
        assert ("401" in operation["responses"]) == bool(security[place]), place


async def test_every_request_to_copy_is_served(client: Client) -> None:
    """As the page shows them, in its order; /embed/text has no embedder here."""
    await client.post("/index/upsert", json=document("note-42", [0.1, 0.9], namespace="vault"))
    last = [place for place in OPERATIONS if place[1] in ("/index/delete", "/index/forget")]
    for place in [*(place for place in OPERATIONS if place not in last), *last]:
        [sample] = OPERATIONS[place]["x-codeSamples"]
        words = shlex.split(sample["source"].replace("\\\n", ""))
        options = list(zip(words[2::2], words[3::2], strict=True))
        bodies = [value for option, value in options if option in ("-d", "--data-binary")]
        answer = await client.request(
            place[0],
            words[1].removeprefix("http://localhost:8080"),
            content=bodies[0] if bodies else None,
            headers=dict(value.split(": ") for option, value in options if option == "-H"),
        )
        expected = 503 if place[1] == "/embed/text" else 200
        assert answer.status_code == expected, (sample["source"], answer.text)


def test_every_body_to_copy_fits_its_type() -> None:
    shown = 0
    for operation in OPERATIONS.values():
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body:
            for example in body["examples"].values():
                valid(body["schema"]["$ref"], example["value"])
                shown += 1
    assert shown >= 8


def broken(change: Any) -> Described:
    """The document with an error in it."""
    changed = copy.deepcopy(DOCUMENT)
    change(changed)
    return Described(changed)


def without_status(document: dict[str, Any]) -> None:
    del document["paths"]["/index/document"]["get"]["responses"]["404"]


def without_code(document: dict[str, Any]) -> None:
    document["paths"]["/index/document"]["get"]["responses"]["404"]["x-codes"] = ["conflict"]


def without_media_type(document: dict[str, Any]) -> None:
    document["paths"]["/index/document"]["get"]["responses"]["404"]["content"] = {"text/plain": {}}


def without_field(document: dict[str, Any]) -> None:
    del document["components"]["schemas"]["Error"]["properties"]["error"]


def with_another_type(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["Error"]["properties"]["code"] = {"type": "integer"}


def with_another_field(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["Error"]["required"] += ["detail"]


def with_another_header(document: dict[str, Any]) -> None:
    reference = {"$ref": "#/components/headers/Retry-After"}
    document["paths"]["/index/document"]["get"]["responses"]["404"]["headers"]["Retry-After"] = (
        reference
    )


@pytest.mark.parametrize(
    "change",
    [
        *(without_status, without_code, without_media_type, without_field),
        *(with_another_type, with_another_field, with_another_header),
    ],
)
async def test_an_answer_that_the_document_does_not_describe_fails_a_test(
    client: Client, change: Any
) -> None:
    answer = await client.get("/index/document", params={"doc_id": "no"})
    assert answer.status_code == 404
    Described(DOCUMENT).check(answer)
    with pytest.raises(AssertionError):
        broken(change).check(answer)


async def test_an_undocumented_answer_of_the_application_fails_the_test_that_meets_it(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.answers.described", lambda: broken(without_status))
    with pytest.raises(AssertionError, match="not a documented status"):
        await client.get("/index/document", params={"doc_id": "no"})


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        self.attributes |= set(given)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []


async def test_the_page_shows_every_route_field_and_code_and_its_links_lead_somewhere(
    client: Client,
) -> None:
    answer: httpx.Response = await client.get("/schema")
    assert answer.status_code == 200
    page = Page(answer.text)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link == "/schema/openapi.json" or link.removeprefix("#") in page.ids, link
    for operation in OPERATIONS.values():
        assert operation["operationId"] in page.ids
        assert operation["x-codeSamples"][0]["source"].splitlines()[0].startswith("curl ")
        for response in operation["responses"].values():
            assert {f"code-{code}" for code in response.get("x-codes", [])} <= set(page.ids)
    for place, _ in fields():
        name = re.split(r"[.?]", place)[-1]
        assert f"<code>{name}</code>" in answer.text, place


async def test_the_page_works_under_a_policy_that_forbids_all_but_its_own_style(
    client: Client,
) -> None:
    answer = await client.get("/schema")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    page = Page(answer.text)
    assert page.tags.isdisjoint({"script", "img", "link", "iframe", "form", "base"})
    assert page.attributes.isdisjoint({"style", "src", "onclick", "onload"})


def test_the_page_escapes_what_it_shows() -> None:
    hostile = copy.deepcopy(DOCUMENT)
    evil = "<script>alert(1)</script>"
    hostile["info"]["title"] = hostile["info"]["description"] = evil
    for schema in hostile["components"]["schemas"].values():
        schema["description"] = evil
        for told in schema["properties"].values():
            told |= {"description": evil, "examples": [evil], "default": evil, "pattern": evil}
    for methods in hostile["paths"].values():
        for operation in methods.values():
            operation |= {"summary": evil, "description": evil}
            operation["x-codeSamples"][0]["source"] = evil
    shown = schema_page.rendered(hostile).decode()
    assert evil not in shown
    assert "&lt;script&gt;" in shown


def test_the_document_is_made_of_the_routes_of_the_application() -> None:
    """A route that has no `Operation` is not in it; only its own two have none."""
    from tests.test_access import APP, ROUTES

    assert {(route.method, route.path) for route in ROUTES} == set(OPERATIONS)
    assert openapi.document(APP) == DOCUMENT
