#!/bin/sh
# Creates the user that everything runs as. Ray needs a user with a name and a writable home.
set -eu

groupadd --gid 1000 plato
useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash plato
