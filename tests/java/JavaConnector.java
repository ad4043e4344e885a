import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Map;
import org.apache.pulsar.functions.api.Record;
import org.apache.pulsar.io.dynamodb.DynamoDBSource;

/**
 * Apache's Java connector as Pulsar runs it, without Pulsar: {@code JavaConnector CONFIGS_AS_JSON RECORDS_A_SECOND}.
 *
 * <p>Pulsar's runtime reads a record, publishes it and reads the next. Here each becomes a line of its key, at most so many a second, which stands for
 * a topic that takes no more. The one class that is not Apache's is its configuration ({@code benches/source/java-peer}), which makes it
 * run against other endpoints than Amazon's.
 */
public final class JavaConnector {
    private JavaConnector() {}

    public static void main(String[] arguments) throws Exception {
        @SuppressWarnings("unchecked")
        Map<String, Object> configs = new ObjectMapper().readValue(arguments[0], Map.class);
        long nanosForEach = 1_000_000_000L / Long.parseLong(arguments[1]);
        // Never closed: it is killed, and its close would wait for nothing anyway.
        @SuppressWarnings("resource")
        DynamoDBSource source = new DynamoDBSource();
        source.open(configs, null);
        long due = System.nanoTime();
        while (true) {
            Record<byte[]> record = source.read();
            due = Math.max(due + nanosForEach, System.nanoTime() - 100_000_000L);
            long early = due - System.nanoTime();
            if (early > 0) {
                Thread.sleep(early / 1_000_000, (int) (early % 1_000_000));
            }
            System.out.println(record.getKey().orElseThrow());
            System.out.flush();
        }
    }
}
