import com.amazonaws.auth.AWSCredentialsProvider;
import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDB;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBClientBuilder;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBStreamsClientBuilder;
import com.amazonaws.services.dynamodbv2.streamsadapter.AmazonDynamoDBStreamsAdapterClient;
import com.amazonaws.services.dynamodbv2.streamsadapter.StreamsWorkerFactory;
import com.amazonaws.services.dynamodbv2.streamsadapter.model.RecordAdapter;
import com.amazonaws.services.kinesis.clientlibrary.interfaces.IRecordProcessorCheckpointer;
import com.amazonaws.services.kinesis.clientlibrary.interfaces.v2.IRecordProcessor;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.InitialPositionInStream;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.KinesisClientLibConfiguration;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.ShutdownReason;
import com.amazonaws.services.kinesis.clientlibrary.lib.worker.Worker;
import com.amazonaws.services.kinesis.clientlibrary.types.InitializationInput;
import com.amazonaws.services.kinesis.clientlibrary.types.ProcessRecordsInput;
import com.amazonaws.services.kinesis.clientlibrary.types.ShutdownInput;
import com.amazonaws.services.kinesis.metrics.impl.NullMetricsFactory;
import com.amazonaws.services.kinesis.model.Record;
import java.util.Date;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * A KCL 1.x worker as the Java connector runs it: {@code KclWorker WORKER_ID APPLICATION STREAM_ARN STREAMS_ENDPOINT LEASES_ENDPOINT [START_AT]}.
 * The environment has its access key. START_AT, in epoch milliseconds, is for AT_TIMESTAMP, which the connector itself cannot ask KCL for.
 *
 * <p>KCL's settings are the connector's, so its defaults. Each record becomes a line of its shard, its event id and the time in epoch
 * milliseconds on standard output. A batch is checkpointed after its lines are out, where the connector does it before its messages are.
 */
public final class KclWorker {
    private KclWorker() {}

    public static void main(String[] arguments) throws Exception {
        String workerId = arguments[0];
        AWSCredentialsProvider credentials = new AWSStaticCredentialsProvider(new BasicAWSCredentials(System.getenv("AWS_ACCESS_KEY_ID"), "local"));
        AmazonDynamoDBStreamsAdapterClient streams = new AmazonDynamoDBStreamsAdapterClient(AmazonDynamoDBStreamsClientBuilder.standard()
                .withEndpointConfiguration(new EndpointConfiguration(arguments[3], "us-east-1"))
                .withCredentials(credentials)
                .build());
        AmazonDynamoDB leases = AmazonDynamoDBClientBuilder.standard()
                .withEndpointConfiguration(new EndpointConfiguration(arguments[4], "us-east-1"))
                .withCredentials(credentials)
                .build();
        KinesisClientLibConfiguration configuration =
                new KinesisClientLibConfiguration(arguments[1], arguments[2], credentials, workerId)
                        .withRegionName("us-east-1")
                        .withInitialPositionInStream(InitialPositionInStream.TRIM_HORIZON);
        if (arguments.length > 5) {
            configuration.withTimestampAtInitialPositionInStream(new Date(Long.parseLong(arguments[5])));
        }
        ExecutorService threads = Executors.newCachedThreadPool();
        Worker worker = StreamsWorkerFactory.createDynamoDbStreamsWorker(
                Lines::new, configuration, streams, leases, new NullMetricsFactory(), threads);
        // As the connector's close does, which waits for nothing either.
        Runtime.getRuntime().addShutdownHook(new Thread(worker::shutdown));
        worker.run();
        System.exit(0);
    }

    /** One shard's records. */
    private static final class Lines implements IRecordProcessor {
        private String shard;

        @Override
        public void initialize(InitializationInput input) {
            shard = input.getShardId();
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            StringBuilder lines = new StringBuilder();
            for (Record record : input.getRecords()) {
                String eventId = ((RecordAdapter) record).getInternalObject().getEventID();
                lines.append(shard).append(' ').append(eventId).append(' ').append(System.currentTimeMillis()).append('\n');
            }
            synchronized (System.out) {
                System.out.print(lines);
                System.out.flush();
            }
            if (!input.getRecords().isEmpty()) {
                checkpoint(input.getCheckpointer());
            }
        }

        @Override
        public void shutdown(ShutdownInput input) {
            if (input.getShutdownReason() == ShutdownReason.TERMINATE) {
                checkpoint(input.getCheckpointer());
            }
        }

        /** Failures are told and passed over, as in the connector: KCL goes on with the next batch, or without the lease. */
        private void checkpoint(IRecordProcessorCheckpointer checkpointer) {
            try {
                checkpointer.checkpoint();
            } catch (Exception error) {
                System.err.println("not checkpointed: " + shard + ": " + error);
            }
        }
    }
}
