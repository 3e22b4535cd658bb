#!/bin/sh
# The user that everything runs as. Ray wants one with a name, and a home to write to.
set -eu

groupadd --gid 1000 plato
useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash plato
