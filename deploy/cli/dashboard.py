"""The command for the page: dashboard."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import ConfigOptions, LogOptions, RegistryOptions, option
from deploy.cli.signature import takes
from deploy.settings.values import parse_feature_names, parse_time_option, parse_words


class ShownOptions:
    """What the page shows."""

    topic: Annotated[
        str | None,
        option("--topic", "The topic of the events; if left out, the only one with forecasts or labels beside it."),
    ] = None
    output: Annotated[
        str | None, option("--output", "The topic of the forecasts; TOPIC-forecasts or TOPIC-labels if left out.")
    ] = None
    group: Annotated[
        str | None,
        option("--group", "The service's consumer group; if left out, the only one that has read the topic."),
    ] = None
    model: Annotated[
        str | None, option("--model", "NAME of the model in the registry; as the forecasts carry it, if left out.")
    ] = None
    features: Annotated[
        str | None, option("--features", "The values of an event; as the scores name them, if left out.")
    ] = None
    since: Annotated[
        str, option("--from", "How far back topics are read: a time, or a duration before now; at least the newest.")
    ] = "7d"


class AddressOptions:
    """Where the page is served, and to whom."""

    host: Annotated[str, option("--host", "The address to listen at; one of other machines needs a token.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, option("--port", "The port; 0 is a free one.", min=0, max=65_535)] = 8765
    token_file: Annotated[
        Path | None,
        option("--token-file", "A file with the token that requests need; or the variable TIDECAST_TOKEN."),
    ] = None
    allowed_hosts: Annotated[
        str | None, option("--allowed-hosts", "Names, separated by commas, that the page may be asked by.")
    ] = None


@takes(ShownOptions, AddressOptions, LogOptions, RegistryOptions, ConfigOptions)
def dashboard(context: typer.Context, bootstrap: str, tracking_uri: str) -> None:
    """Show a service's forecasts, scores and health on a web page.

    The page's address is the first line on stdout. Reads topics only, joins no group and writes nothing, so it can run
    anywhere, beside any number of services, before and after them; the registry is shown where it can be reached. What
    it has read is kept in a temporary file of limited size.

    On 127.0.0.1 whoever is on this machine may look. With another --host a token is needed: open the page once as
    http://HOST:PORT/?token=..., or send Authorization: Bearer.
    """
    from deploy.dashboard.run import Options
    from deploy.dashboard.run import dashboard as run

    given = context.params
    features = given["features"]
    run(
        Options(
            bootstrap=bootstrap,
            tracking_uri=tracking_uri,
            features=None if features is None else parse_feature_names("features", features),
            since=parse_time_option("from", given["since"]),
            allowed_hosts=parse_words(given["allowed_hosts"] or ""),
            **{name: given[name] for name in ("topic", "output", "group", "model", "host", "port", "token_file")},
        )
    )
