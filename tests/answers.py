"""Holds answers of the service against its OpenAPI document."""

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema_rs

from indexd.api import openapi
from indexd.app import create_app
from indexd.settings import Settings


class Described:
    """A document whose schemas are compiled once each; objects may hold nothing else there."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._schemas = {
            name: {**copy.deepcopy(schema), "additionalProperties": False}
            for name, schema in document["components"]["schemas"].items()
        }
        self._valid: dict[str, Callable[[Any], None]] = {}

    def check(self, response: httpx.Response) -> None:
        """Raises AssertionError for an answer that the document does not describe."""
        method, path = response.request.method, response.request.url.path
        operations = self.document["paths"].get(path, {})
        operation = operations.get(method.lower())
        if operation is None:
            self._check_outside(response, method, path, known=bool(operations))
            return
        where = f"{method} {path} {response.status_code}"
        found = operation["responses"].get(str(response.status_code))
        assert found is not None, f"{where}: not a documented status: {response.text[:500]}"
        for name, reference in found.get("headers", {}).items():
            header = self._resolved(reference)
            assert name in response.headers or not header.get("required"), f"{where}: no {name}"
        media_type = response.headers.get("content-type", "").partition(";")[0]
        assert media_type in found["content"], f"{where}: {media_type} is not documented"
        if "$ref" in found["content"][media_type]["schema"]:
            body = self._valid_json(response, found["content"][media_type]["schema"]["$ref"])
            codes = found.get("x-codes")
            assert codes is None or body["code"] in codes, f"{where}: code {body['code']}: {codes}"

    def _check_outside(
        self, response: httpx.Response, method: str, path: str, *, known: bool
    ) -> None:
        """An unknown route, a method that the route does not have, or a route of a test's own."""
        if response.status_code < 400:
            return
        body = self._valid_json(response, "#/components/schemas/Error")
        expected = "method_not_allowed" if known else "unknown_route"
        if response.status_code in (404, 405):
            assert body["code"] == expected, f"{method} {path}: {body['code']}"

    def _valid_json(self, response: httpx.Response, reference: str) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(response.content)
        if reference not in self._valid:
            whole = {"$ref": reference, "components": {"schemas": self._schemas}}
            self._valid[reference] = jsonschema_rs.Draft202012Validator(whole).validate
        try:
            self._valid[reference](body)
        except jsonschema_rs.ValidationError as error:
            message = f"{response.request.method} {response.request.url.path}"
            message += f" {response.status_code}, {reference}: {error.message} at "
            raise AssertionError(message + "/".join(map(str, error.instance_path))) from error
        return body

    def _resolved(self, reference: dict[str, str]) -> dict[str, Any]:
        name = reference["$ref"].rpartition("/")[2]
        header: dict[str, Any] = self.document["components"]["headers"][name]
        return header


@functools.cache
def described() -> Described:
    """The document of this program; it is the same for all settings."""
    app = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
    return Described(openapi.document(app))
