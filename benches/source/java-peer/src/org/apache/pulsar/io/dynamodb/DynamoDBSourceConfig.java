package org.apache.pulsar.io.dynamodb;

// The Java connector's configuration class, written anew for the benchmark: only the method names that its other classes call were kept.
// The one intended difference: an endpoint and a region are given to the SDK's builders together, never by setRegion and setEndpoint.

import com.amazonaws.client.builder.AwsClientBuilder;
import com.amazonaws.services.cloudwatch.AmazonCloudWatch;
import com.amazonaws.services.cloudwatch.AmazonCloudWatchClientBuilder;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDB;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBClientBuilder;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBStreams;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBStreamsClientBuilder;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.InitialPositionInStream;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.Serializable;
import java.util.Date;
import java.util.Map;
import org.apache.pulsar.io.aws.AwsCredentialProviderPlugin;
import org.apache.pulsar.io.core.SourceContext;

public class DynamoDBSourceConfig implements Serializable {
    private static final long serialVersionUID = 7L;

    private String awsEndpoint = "";
    private String awsRegion = "";
    private String awsDynamodbStreamArn = "";
    private String awsCredentialPluginName = "";
    private String awsCredentialPluginParam = "";
    private InitialPositionInStream initialPositionInStream = InitialPositionInStream.LATEST;
    private Date startAtTime;
    private String applicationName = "pulsar-dynamodb";
    private long checkpointInterval = 60000L;
    private long backoffTime = 3000L;
    private int numRetries = 3;
    private int receiveQueueSize = 1000;
    private String dynamoEndpoint = "";
    private String cloudwatchEndpoint = "";

    public static DynamoDBSourceConfig load(Map<String, Object> map) throws IOException {
        ObjectMapper m = new ObjectMapper().configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false);
        return m.convertValue(map, DynamoDBSourceConfig.class);
    }

    public static DynamoDBSourceConfig load(Map<String, Object> map, SourceContext ctx) throws IOException {
        return load(map);
    }

    private <B extends AwsClientBuilder<B, C>, C> C make(B b, String endpoint, AwsCredentialProviderPlugin p) {
        b.setCredentials(p.getCredentialProvider());
        if (endpoint != null && !endpoint.isEmpty()) {
            b.setEndpointConfiguration(new AwsClientBuilder.EndpointConfiguration(endpoint, awsRegion));
        } else {
            b.setRegion(awsRegion);
        }
        return b.build();
    }

    public AmazonDynamoDBStreams buildDynamoDBStreamsClient(AwsCredentialProviderPlugin p) {
        return make(AmazonDynamoDBStreamsClientBuilder.standard(), awsEndpoint, p);
    }

    public AmazonDynamoDB buildDynamoDBClient(AwsCredentialProviderPlugin p) {
        return make(AmazonDynamoDBClientBuilder.standard(), dynamoEndpoint, p);
    }

    public AmazonCloudWatch buildCloudwatchClient(AwsCredentialProviderPlugin p) {
        return make(AmazonCloudWatchClientBuilder.standard(), cloudwatchEndpoint, p);
    }

    public String getAwsEndpoint() { return awsEndpoint; }
    public void setAwsEndpoint(String v) { awsEndpoint = v; }
    public String getAwsRegion() { return awsRegion; }
    public void setAwsRegion(String v) { awsRegion = v; }
    public String getAwsDynamodbStreamArn() { return awsDynamodbStreamArn; }
    public void setAwsDynamodbStreamArn(String v) { awsDynamodbStreamArn = v; }
    public String getAwsCredentialPluginName() { return awsCredentialPluginName; }
    public void setAwsCredentialPluginName(String v) { awsCredentialPluginName = v; }
    public String getAwsCredentialPluginParam() { return awsCredentialPluginParam; }
    public void setAwsCredentialPluginParam(String v) { awsCredentialPluginParam = v; }
    public InitialPositionInStream getInitialPositionInStream() { return initialPositionInStream; }
    public void setInitialPositionInStream(InitialPositionInStream v) { initialPositionInStream = v; }
    public Date getStartAtTime() { return startAtTime; }
    public void setStartAtTime(Date v) { startAtTime = v; }
    public String getApplicationName() { return applicationName; }
    public void setApplicationName(String v) { applicationName = v; }
    public long getCheckpointInterval() { return checkpointInterval; }
    public void setCheckpointInterval(long v) { checkpointInterval = v; }
    public long getBackoffTime() { return backoffTime; }
    public void setBackoffTime(long v) { backoffTime = v; }
    public int getNumRetries() { return numRetries; }
    public void setNumRetries(int v) { numRetries = v; }
    public int getReceiveQueueSize() { return receiveQueueSize; }
    public void setReceiveQueueSize(int v) { receiveQueueSize = v; }
    public String getDynamoEndpoint() { return dynamoEndpoint; }
    public void setDynamoEndpoint(String v) { dynamoEndpoint = v; }
    public String getCloudwatchEndpoint() { return cloudwatchEndpoint; }
    public void setCloudwatchEndpoint(String v) { cloudwatchEndpoint = v; }
}
