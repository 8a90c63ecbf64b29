//! Network namespaces, veths and hosts for the lab and the tests.
