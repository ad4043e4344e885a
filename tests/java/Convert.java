import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBStreams;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBStreamsClientBuilder;
import com.amazonaws.services.dynamodbv2.model.GetRecordsRequest;
import com.amazonaws.services.dynamodbv2.model.Record;
import com.amazonaws.services.dynamodbv2.streamsadapter.model.RecordAdapter;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;
import org.apache.pulsar.io.dynamodb.StreamsRecord;

/**
 * What the Java connector publishes: one stream record a line on standard input, as the service writes it, and for each one line of JSON with the
 * message's key, properties and value (base64) on standard output.
 *
 * <p>The record takes the connector's whole way: out of an answer of GetRecords by the SDK's client, through the Streams adapter, into
 * the connector's own record.
 */
public final class Convert {
    private static volatile byte[] answer;

    private Convert() {}

    public static void main(String[] arguments) throws Exception {
        // Or else each answer waits for an acknowledgement of its head.
        System.setProperty("sun.net.httpserver.nodelay", "true");
        HttpServer service = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
        service.createContext("/", exchange -> {
            exchange.getRequestBody().readAllBytes();
            exchange.getResponseHeaders().add("Content-Type", "application/x-amz-json-1.0");
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        service.start();
        String endpoint = "http://127.0.0.1:" + service.getAddress().getPort();
        AmazonDynamoDBStreams streams = AmazonDynamoDBStreamsClientBuilder.standard()
                .withEndpointConfiguration(new EndpointConfiguration(endpoint, "us-east-1"))
                .withCredentials(new AWSStaticCredentialsProvider(new BasicAWSCredentials("local", "local")))
                .build();
        ObjectMapper json = new ObjectMapper();
        BufferedReader records = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = records.readLine(); line != null; line = records.readLine()) {
            answer = ("{\"NextShardIterator\":\"next\",\"Records\":[" + line + "]}").getBytes(StandardCharsets.UTF_8);
            Map<String, Object> message = new TreeMap<>();
            try {
                Record record = streams.getRecords(new GetRecordsRequest().withShardIterator("it")).getRecords().get(0);
                StreamsRecord published = new StreamsRecord(new RecordAdapter(record));
                message.put("key", published.getKey().orElse(null));
                message.put("properties", published.getProperties());
                message.put("value", published.getValue());
            } catch (Exception error) {
                message.put("error", error.toString());
            }
            System.out.println(json.writeValueAsString(message));
        }
        service.stop(0);
    }
}
