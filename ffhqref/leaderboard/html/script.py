"""The scripts of Vega that the page carries, as the package vl-convert-python brings them."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from ffhqref.core.files import write_atomic


def vega_script() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that defines ``vegaEmbed``.

    Putting it together takes some seconds, so it is kept in the user's cache, for each version of the package.
    """
    import vl_convert

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ffhqref" / "scripts"
    versions = (
        vl_convert.get_vega_version(),
        vl_convert.get_vegalite_versions()[-1],
        vl_convert.get_vega_embed_version(),
    )
    file = cache / f"vega-{'-'.join(versions)}.js"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    script = "(() => {" + vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;") + "})();"
    script = re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)  # or it would end its element
    with contextlib.suppress(OSError):  # without a cache, the next report puts it together again
        write_atomic(file, script.encode())
    return script
