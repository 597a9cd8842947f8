"""`receptance serve MODEL`: an OpenAI-compatible server with a page to chat on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..display import printable
from ..errors import InputError, MissingExtraError
from .options import (
    GUESS,
    MODEL_HELP,
    DeviceOption,
    DtypeOption,
    QuantOption,
    TemplateOption,
    TokenizerOption,
    model_or_advice,
    named,
)
from .terminal import loading

if TYPE_CHECKING:
    from ..server import Recipe, Service, Settings

WHO, HOW_MUCH, MEMORY, MANY = "Who may ask", "How much at a time", "What is remembered", "Many machines"
MiB, GiB = 2**20, 2**30


def serve(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, callback=named)] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; this machine alone if not given.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is any free one.")] = 8000,
    name: Annotated[str | None, typer.Option(help="The id of the model; what you named it by if not given.")] = None,
    think: Annotated[str | None, typer.Option(help="The think mode where a request names none.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FOLDER", help="Low-rank additions, asked for as MODEL:NAME.  May be repeated."),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FILE", help="A tuned state to start from, asked for as MODEL:NAME."),
    ] = None,
    draft: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A smaller model that guesses where a request has `speculate`.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE", rich_help_panel=WHO, help="API keys and their limits, as TOML.")
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", rich_help_panel=WHO, help="A web page that may ask.")
    ] = None,
    known_as: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", rich_help_panel=WHO, help="A name under which the server may be asked."),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, max=4096, rich_help_panel=HOW_MUCH, help="Answers at a time.")] = 32,
    queue: Annotated[
        int, typer.Option(min=1, rich_help_panel=HOW_MUCH, help="Requests that may wait; more are told to come later.")
    ] = 1024,
    max_prompt: Annotated[
        int, typer.Option(min=1, rich_help_panel=HOW_MUCH, help="The most tokens of a prompt.")
    ] = 2**17,
    max_tokens: Annotated[
        int, typer.Option(min=1, rich_help_panel=HOW_MUCH, help="The most tokens of an answer.")
    ] = 2**14,
    max_body: Annotated[
        float, typer.Option(min=0.001, rich_help_panel=HOW_MUCH, help="The largest body of a request, in MiB.")
    ] = 32,
    cache: Annotated[
        float, typer.Option(min=0, rich_help_panel=MEMORY, help="Memory for states of what was read, in GiB.")
    ] = 1.0,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", rich_help_panel=MEMORY, help="Where states and conversations outlive the server."
        ),
    ] = None,
    store_size: Annotated[
        float, typer.Option(min=0, rich_help_panel=MEMORY, help="The most that states take there, in GiB.")
    ] = 16.0,
    ray: Annotated[
        bool, typer.Option("--ray", rich_help_panel=MANY, help="Serve on the Ray cluster that this machine is in.")
    ] = False,
    replicas: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:MAX", rich_help_panel=MANY, help="Copies of the model, or as many as there is work for."
        ),
    ] = None,
    drain: Annotated[int, typer.Option(min=0, help="Seconds that answers have when the server is to end.")] = 30,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    quant: QuantOption = None,
    template: TemplateOption = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Serve a model by OpenAI's interface, with a page to chat on. Ctrl-C or SIGTERM ends it in order."""
    wanted = model_or_advice(model, "receptance serve")
    if replicas is not None and not ray:
        raise InputError("--replicas goes with --ray; give both or neither")
    try:
        from .. import server
        from ..server import access, launch
    except ImportError as error:
        raise MissingExtraError(
            f"the server needs {error.name}; install it with: pip install 'receptance[serve]'"
        ) from error
    hosts = [*launch.LOOPBACK, _shown(host), *(known_as or ())] if launch.is_loopback(host) else known_as or []
    settings = server.Settings(
        access=access.Access() if keys is None else access.read_keys(keys),
        hosts=hosts,
        origins=cors or (),
        most_bytes=int(max_body * MiB),
    )
    # Before the model is loaded, which takes long.
    listening = launch.bind(host, port)
    options = server.Options(
        adapters=_named_paths(adapter, "adapter"),
        states=_named_paths(state, "state"),
        slots=slots,
        waiting=queue,
        cache_bytes=int(cache * GiB),
        store=store,
        store_bytes=int(store_size * GiB),
        think=think,
        most_prompt_tokens=max_prompt,
        most_new_tokens=max_tokens,
    )
    recipe = server.Recipe(
        model=wanted,
        name=name or _id_of(wanted),
        loading={
            "dtype": dtype.value if dtype else None,
            "device": device,
            "tokenizer": tokenizer,
            "template": template,
            "quant": quant,
        },
        draft=draft,
        options=options,
    )
    port = listening.getsockname()[1]
    if ray:
        # Each of Ray's proxies listens at the port itself.
        listening.close()
        _serve_many(recipe, settings, replicas, host, port, drain)
        return
    with loading(wanted, quant):
        service = recipe.service()
    launch.log_to_stderr()
    launch.run(service, settings, listening, drain, lambda: _announce(service, settings, host, port))


def _serve_many(
    recipe: Recipe, settings: Settings, replicas: str | None, host: str, port: int, drain_seconds: int
) -> None:
    from ..many import Replicas, run

    wanted = Replicas.of(replicas or "1")
    if recipe.options.store is None and wanted.most > 1:
        print("each replica stores conversations of its own; --store names a folder for all", file=sys.stderr)
    on_start = partial(_announce_address, [recipe.name], settings, host, port)
    run(recipe, settings, wanted, host, port, drain_seconds, on_start)


def _announce(service: Service, settings: Settings, host: str, port: int) -> None:
    from ..devices import dtype_name

    lm = service.lm
    weight = lm.model.emb.weight
    template = lm.chat_template.name + (f" ({GUESS})" if lm.template is None else "")
    print(
        f"{printable(lm.name)}: RWKV-{lm.config.version}, {dtype_name(weight.dtype)} on {weight.device}, "
        f"template {template}",
        file=sys.stderr,
    )
    _announce_address(service.offers, settings, host, port)


def _announce_address(models: Iterable[str], settings: Settings, host: str, port: int) -> None:
    from ..server.launch import is_loopback

    address = f"http://{_shown(host)}:{port}"
    print(
        f"{address} is a page to chat on, {address}/v1 the API (models: {', '.join(models)})",
        file=sys.stderr,
    )
    if not (is_loopback(host) or settings.access.has_keys):
        print("everybody who reaches this address may ask; --keys names who may", file=sys.stderr)


def _named_paths(given: list[str] | None, what: str) -> dict[str, Path]:
    """NAME=PATH, or a path whose name it is."""
    found: dict[str, Path] = {}
    for text in given or ():
        name, equals, path = text.rpartition("=")
        place = Path(path if equals else text)
        name = name if equals else place.stem
        if not name or name in found or not place.exists():
            why = "there is none there" if not place.exists() else "it needs a name of its own, as NAME=PATH"
            raise InputError(f"--{what} {text}: {why}")
        found[name] = place
    return found


def _id_of(wanted: str) -> str:
    """A short name for what was named by a path or a name."""
    return Path(wanted).stem if Path(wanted).is_file() else Path(wanted).name


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host

