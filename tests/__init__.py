"""The tests. A regular package, so that workers find it before the package `tests` that torch-fidelity installs."""
