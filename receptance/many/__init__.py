"""Many machines, with Ray: a server of several replicas, and answers to a whole data set.

    run(Recipe(model="rwkv7-g1-1.5b", name="g1"), replicas=Replicas.of("2:8"))          # until Ctrl-C
    generate(ray.data.read_json("prompts/"), "rwkv7-g1-1.5b", workers=8).write_json("answers/")

A server is `serving`'s replicas (`replica`) behind a door that knows sessions (`door`, `sessions`); data sets are
answered in `batches`.  Ray is imported here alone.
"""

from ..errors import MissingExtraError

try:
    from .batches import generate
    from .serving import Replicas, application, run
except ImportError as error:
    raise MissingExtraError(
        f"work on many machines needs {error.name}; install it with: pip install 'receptance[ray]'"
    ) from error

__all__ = ["Replicas", "application", "generate", "run"]
