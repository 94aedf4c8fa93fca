# What `make install` copies, for PostgreSQL's own build system. It runs from the project's root,
# after `make build`:  make -f extension/pgxs.mk install  PG_CONFIG=… DESTDIR=…
# A makefile of its own, because PGXS can only be included once PostgreSQL is there.

PG_CONFIG ?= pg_config
EXTENSION = kerai
DATA_built = $(wildcard build/kerai--*.sql)
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
# PGXS takes this makefile's folder for the sources' place.
srcdir := .

# One folder a version: a session from before an upgrade, and a database that was not upgraded yet,
# still find the package that fits their functions.
version := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" kerai.control)
python_source := extension/python/kerai
python_files := $(shell cd $(python_source) && find . -name '*.py' -o -name py.typed)
python_target = $(DESTDIR)$(pkglibdir)/kerai/$(version)

install: install-python
uninstall: uninstall-python

# Put together next to its place and then swapped in, so that a module that is gone from the sources
# is gone from the server too.
.PHONY: install-python uninstall-python
install-python:
	rm -rf '$(python_target).new'
	for file in $(python_files); do \
		install -D -m 0644 $(python_source)/$$file '$(python_target).new/kerai/'$$file || exit 1; \
	done
	find '$(python_target).new' -type d -exec chmod 0755 {} +
	chmod 0755 '$(DESTDIR)$(pkglibdir)/kerai'
	rm -rf '$(python_target)'
	mv '$(python_target).new' '$(python_target)'

# The folder above stays while it holds another version's package.
uninstall-python:
	rm -rf '$(python_target)'
	rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(pkglibdir)/kerai'
