# Sourced by the other scripts: makes .venv if need be, with torch first so that nothing pulls in another build of it.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "copgen needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
if ! .venv/bin/python -c 'import copgen, importlib.metadata as m; m.version("pytest-xdist")' 2>/dev/null; then
    echo "installing into .venv (once)"
    .venv/bin/pip install --quiet --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
    .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
fi
export PATH="$PWD/.venv/bin:$PATH"
