"""`python -m framework.serve`: a model directory behind HTTP."""

from framework.app import entry
from framework.config import ServeConfig


@entry("serve", ServeConfig)
def main(config: ServeConfig) -> None:
    """Serve until a signal asks for the end."""
    from importlib.util import find_spec

    from framework.errors import UserError

    lacking = [name for name in ("fastapi", "uvicorn", "prometheus_client") if not find_spec(name)]
    if lacking:
        raise UserError(f"serve: needs {', '.join(lacking)}, not installed; pip install 'loam[serve]'")
    from framework.inference.server.serving import serve

    serve(config)


if __name__ == "__main__":
    main()
