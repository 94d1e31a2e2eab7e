"""The blocking facade over the asynchronous stores."""
