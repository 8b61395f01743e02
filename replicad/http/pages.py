"""The page at ``/``: what this is, and where things are. Self-contained: no script, nothing fetched."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #2a6f4e; }
@media (prefers-color-scheme: dark) { :root { --accent: #7fd1a8; } }
body { max-width: 46rem; margin: 3rem auto; padding: 0 1.25rem; line-height: 1.55;
       font-family: system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; margin: 0; letter-spacing: -0.02em; }
h1 small { font-size: .95rem; font-weight: 400; opacity: .65; letter-spacing: 0; margin-left: .5rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .5rem 0 0; }
a { color: var(--accent); }
code, pre { font: .875rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--soft); border-radius: .5rem; padding: .9rem 1rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid var(--line); padding: .4rem .8rem .4rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
"""

PLACES = (
    ("/v1/kv/?keys", "the keys; <code>/v1/kv/KEY</code> is one entry, <code>?raw</code> its bytes alone"),
    ("/v1/replicad/status?pretty", "epoch, view, slots, index and digest of every group, as this node sees them"),
    ("/v1/status/leader", "the coordinator's address; <a href='/v1/status/peers'>/v1/status/peers</a> are all of them"),
    ("/metrics", "metrics for Prometheus"),
    ("/livez", "the event loop turns"),
    ("/readyz", "this node can serve reads and pass on writes now; if not, what is missing"),
)

CONTENT_SECURITY = b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"


def front_page(node: str, cluster: str, version: str, address: str) -> str:
    """Return the page of one node; ``address`` is the ``host:port`` under which the reader sees it."""
    rows = "\n".join(
        f'<tr><td><a href="{place}"><code>{place}</code></a></td><td>{what}</td></tr>' for place, what in PLACES
    )
    base = f"http://{escape(address)}/v1/kv"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>replicad: {escape(node)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>replicad<small>{escape(version)}</small></h1>
<p>Node <b>{escape(node)}</b> of the cluster <b>{escape(cluster)}</b>: a replicated key-value store that speaks the
key-value part of Consul's HTTP API. Every node takes reads and writes, and what was acknowledged survives the loss of
any minority of nodes.</p>
<h2>Try it</h2>
<pre>curl -X PUT --data 'hello' {base}/greeting
curl '{base}/greeting?raw'
curl '{base}/?keys'</pre>
<h2>Where things are</h2>
<table>
{rows}
</table>
</body>
</html>
"""
