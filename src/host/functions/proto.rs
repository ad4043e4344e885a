//! The messages of Pulsar's `InstanceCommunication.proto` (package `proto`, 4.0.8) that an instance answers with. Field numbers are Pulsar's.

use std::collections::HashMap;

use prost::Message;

/// `GetFunctionStatus`. What the worker overwrites (restarts, the worker's id) is left out.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionStatus {
    #[prost(bool, tag = "1")]
    pub running: bool,
    #[prost(string, tag = "2")]
    pub failure_exception: String,
    #[prost(int64, tag = "5")]
    pub num_successfully_processed: i64,
    #[prost(int64, tag = "6")]
    pub num_user_exceptions: i64,
    #[prost(message, repeated, tag = "7")]
    pub latest_user_exceptions: Vec<ExceptionInformation>,
    #[prost(int64, tag = "8")]
    pub num_system_exceptions: i64,
    #[prost(message, repeated, tag = "9")]
    pub latest_system_exceptions: Vec<ExceptionInformation>,
    /// Milliseconds.
    #[prost(double, tag = "12")]
    pub average_latency: f64,
    /// Epoch milliseconds.
    #[prost(int64, tag = "13")]
    pub last_invocation_time: i64,
    #[prost(string, tag = "14")]
    pub instance_id: String,
    #[prost(int64, tag = "17")]
    pub num_received: i64,
    #[prost(int64, tag = "18")]
    pub num_source_exceptions: i64,
    #[prost(message, repeated, tag = "19")]
    pub latest_source_exceptions: Vec<ExceptionInformation>,
    #[prost(int64, tag = "20")]
    pub num_sink_exceptions: i64,
    #[prost(message, repeated, tag = "21")]
    pub latest_sink_exceptions: Vec<ExceptionInformation>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExceptionInformation {
    #[prost(string, tag = "1")]
    pub exception_string: String,
    #[prost(int64, tag = "2")]
    pub ms_since_epoch: i64,
}

/// `GetMetrics`. What ends in `1min` counts from the last full minute on.
#[derive(Clone, PartialEq, Message)]
pub struct MetricsData {
    #[prost(int64, tag = "2")]
    pub received_total: i64,
    #[prost(int64, tag = "4")]
    pub processed_successfully_total: i64,
    #[prost(int64, tag = "5")]
    pub system_exceptions_total: i64,
    #[prost(int64, tag = "6")]
    pub user_exceptions_total: i64,
    /// Milliseconds.
    #[prost(double, tag = "7")]
    pub avg_process_latency: f64,
    /// Epoch milliseconds.
    #[prost(int64, tag = "8")]
    pub last_invocation: i64,
    #[prost(map = "string, double", tag = "9")]
    pub user_metrics: HashMap<String, f64>,
    #[prost(int64, tag = "10")]
    pub received_total_1min: i64,
    #[prost(int64, tag = "12")]
    pub processed_successfully_total_1min: i64,
    #[prost(int64, tag = "13")]
    pub system_exceptions_total_1min: i64,
    #[prost(int64, tag = "14")]
    pub user_exceptions_total_1min: i64,
    /// Milliseconds.
    #[prost(double, tag = "15")]
    pub avg_process_latency_1min: f64,
}

/// `HealthCheck`.
#[derive(Clone, PartialEq, Message)]
pub struct HealthCheckResult {
    #[prost(bool, tag = "1")]
    pub success: bool,
}
