"""The tests. As a package of its own, no other one of this name that is installed can come before it."""
