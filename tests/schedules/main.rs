//! Exhaustive schedules of the conversation with the gateway.
