//! The only users of the AWS SDK's DynamoDB and DynamoDB Streams clients.

pub mod attribute;
pub mod client;
pub mod credentials;
pub mod failure;
