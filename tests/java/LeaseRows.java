import com.amazonaws.auth.AWSStaticCredentialsProvider;
import com.amazonaws.auth.BasicAWSCredentials;
import com.amazonaws.client.builder.AwsClientBuilder.EndpointConfiguration;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDB;
import com.amazonaws.services.dynamodbv2.AmazonDynamoDBClientBuilder;
import com.amazonaws.services.dynamodbv2.model.AttributeValue;
import com.amazonaws.services.kinesis.clientlibrary.types.ExtendedSequenceNumber;
import com.amazonaws.services.kinesis.leases.impl.KinesisClientLease;
import com.amazonaws.services.kinesis.leases.impl.KinesisClientLeaseManager;
import com.amazonaws.services.kinesis.leases.impl.KinesisClientLeaseSerializer;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * KCL 1.x's own lease manager and serializer on one lease table: {@code LeaseRows ENDPOINT TABLE}, with one command a line on standard input and
 * one line of JSON for each on standard output.
 *
 * <p>As a worker does, it acts on a lease as it was last read or written here, which {@code get} and {@code list} refresh.
 */
public final class LeaseRows {
    private final AmazonDynamoDB client;
    private final String table;
    private final KinesisClientLeaseManager manager;
    private final KinesisClientLeaseSerializer serializer = new KinesisClientLeaseSerializer();
    private final Map<String, KinesisClientLease> known = new HashMap<>();

    private LeaseRows(String endpoint, String table) {
        this.client = AmazonDynamoDBClientBuilder.standard()
                .withEndpointConfiguration(new EndpointConfiguration(endpoint, "us-east-1"))
                .withCredentials(new AWSStaticCredentialsProvider(new BasicAWSCredentials("local", "local")))
                .build();
        this.table = table;
        this.manager = new KinesisClientLeaseManager(table, client);
    }

    public static void main(String[] arguments) throws Exception {
        LeaseRows rows = new LeaseRows(arguments[0], arguments[1]);
        ObjectMapper json = new ObjectMapper();
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            Object answer;
            try {
                answer = rows.run(line.trim().split(" +"));
            } catch (Exception error) {
                answer = Map.of("error", error.toString());
            }
            System.out.println(json.writeValueAsString(answer));
        }
    }

    /** The command's answer: true, false, a lease, leases, text or a row. */
    private Object run(String[] words) throws Exception {
        String key = words.length > 1 ? words[1] : null;
        KinesisClientLease lease = known.get(key);
        return switch (words[0]) {
            case "create-table" -> manager.createLeaseTableIfNotExists(10L, 10L) && manager.waitUntilLeaseTableExists(1, 60);
            case "list" -> {
                known.clear();
                for (KinesisClientLease found : manager.listLeases()) {
                    known.put(found.getLeaseKey(), found);
                }
                yield new TreeMap<>(known).values().stream().map(LeaseRows::shown).toList();
            }
            case "get" -> {
                KinesisClientLease found = manager.getLease(key);
                if (found == null) {
                    known.remove(key);
                    yield Map.of();
                }
                known.put(key, found);
                yield shown(found);
            }
            // create KEY CHECKPOINT [PARENT]
            case "create" -> {
                KinesisClientLease created = new KinesisClientLease();
                created.setLeaseKey(key);
                created.setCheckpoint(new ExtendedSequenceNumber(words[2]));
                created.setOwnerSwitchesSinceCheckpoint(0L);
                created.setParentShardIds(Arrays.asList(words).subList(3, words.length));
                known.put(key, created);
                yield manager.createLeaseIfNotExists(created);
            }
            case "take" -> manager.takeLease(lease, words[2]);
            case "renew" -> manager.renewLease(lease);
            // As the coordinator's setCheckpoint does it.
            case "checkpoint" -> {
                KinesisClientLease next = new KinesisClientLease(lease);
                next.setCheckpoint(new ExtendedSequenceNumber(words[2]));
                next.setPendingCheckpoint(null);
                next.setOwnerSwitchesSinceCheckpoint(0L);
                boolean written = manager.updateLease(next);
                if (written) {
                    known.put(key, next);
                }
                yield written;
            }
            // The two-phase checkpoint's first half.
            case "prepare" -> {
                lease.setPendingCheckpoint(new ExtendedSequenceNumber(words[2]));
                lease.setOwnerSwitchesSinceCheckpoint(0L);
                yield manager.updateLease(lease);
            }
            case "evict" -> manager.evictLease(lease);
            case "delete" -> {
                manager.deleteLease(lease);
                yield true;
            }
            case "checkpoint-of" -> manager.getCheckpoint(key).getSequenceNumber();
            // How KCL orders two checkpoints: -1, 0 or 1.
            case "compare" -> Integer.signum(new ExtendedSequenceNumber(words[1]).compareTo(new ExtendedSequenceNumber(words[2])));
            // The row through KCL's reader and writer.
            case "rewrite" -> {
                Map<String, AttributeValue> row = client.getItem(table, serializer.getDynamoHashKey(key), true).getItem();
                yield tagged(serializer.toDynamoRecord(serializer.fromDynamoRecord(row)));
            }
            default -> throw new IllegalArgumentException("no such command: " + String.join(" ", words));
        };
    }

    private static Map<String, Object> shown(KinesisClientLease lease) {
        Map<String, Object> shown = new LinkedHashMap<>();
        shown.put("shard", lease.getLeaseKey());
        shown.put("owner", lease.getLeaseOwner());
        shown.put("counter", lease.getLeaseCounter());
        shown.put("checkpoint", lease.getCheckpoint().getSequenceNumber());
        shown.put("ownerSwitches", lease.getOwnerSwitchesSinceCheckpoint());
        shown.put("parents", List.copyOf(lease.getParentShardIds()));
        shown.put("pending", lease.getPendingCheckpoint() == null ? null : lease.getPendingCheckpoint().getSequenceNumber());
        return shown;
    }

    private static Map<String, Object> tagged(Map<String, AttributeValue> row) {
        Map<String, Object> tagged = new TreeMap<>();
        row.forEach((name, value) -> tagged.put(name, value.getSS() != null ? Map.of("SS", value.getSS())
                : value.getN() != null ? Map.of("N", value.getN()) : Map.of("S", value.getS())));
        return tagged;
    }
}
