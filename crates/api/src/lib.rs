//! The topology schema, requests and responses, and the client.
