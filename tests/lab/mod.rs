//! Real parts: Pulsar and DynamoDB Local.
