import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.CompressionType;
import org.apache.pulsar.client.api.MessageId;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.PulsarClient;

/**
 * Messages that Pulsar's client cuts into chunks, of several producers at once, so that the chunks of one come between another's.
 *
 * <p>{@code Chunks URL TOPIC PRODUCERS ROUNDS SEED} sends messages of 1 to 2 MB, and in each round a small one of each producer that is not cut. Each
 * producer has items of its own. The last number of an item is the last message's.
 */
public final class Chunks {
    private static final int CHUNK = 100_000;
    private static final int ITEMS = 3;

    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[2]);
        int rounds = Integer.parseInt(arguments[3]);
        Random random = new Random(Long.parseLong(arguments[4]));
        CompressionType[] compressions = {CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD};
        try (PulsarClient client = PulsarClient.builder().serviceUrl(arguments[0]).build()) {
            List<Producer<byte[]>> producers = new ArrayList<>();
            for (int of = 0; of < count; of++) {
                producers.add(client.newProducer().topic(arguments[1]).enableBatching(false).enableChunking(true).chunkMaxMessageSize(CHUNK)
                        .compressionType(compressions[of % compressions.length]).sendTimeout(0, TimeUnit.SECONDS).create());
            }
            List<CompletableFuture<MessageId>> sent = new ArrayList<>();
            for (int round = 0; round < rounds; round++) {
                for (int of = 0; of < count; of++) {
                    int item = of * ITEMS + round % ITEMS;
                    sent.add(send(producers.get(of), item, 2 * round, 1_000_000 + random.nextInt(1_000_000), random));
                    sent.add(send(producers.get(of), item, 2 * round + 1, 10, random));
                }
                if (round + 1 == rounds) {
                    // The last word is a large one's.
                    for (int of = 0; of < count; of++) {
                        sent.add(send(producers.get(of), of * ITEMS, 2 * rounds, 1_500_000, random));
                    }
                }
                CompletableFuture.allOf(sent.toArray(CompletableFuture[]::new)).join();
                sent.clear();
            }
        }
    }

    private static CompletableFuture<MessageId> send(Producer<byte[]> producer, int item, int number, int bytes, Random random) {
        StringBuilder filler = new StringBuilder(bytes);
        while (filler.length() < bytes) {
            // Half of it is the same each time, so that packing makes less of it.
            filler.append(Long.toString(random.nextLong(Long.MAX_VALUE), 36)).append("the same again");
        }
        String kept = filler.substring(0, Math.min(bytes, 50_000));
        String json = String.format("{\"pk\":\"item-%d\",\"sk\":%d,\"n\":%d,\"size\":%d,\"crc\":%d,\"kept\":\"%s\",\"filler\":\"%s\"}",
                item, item, number, filler.length(), kept.hashCode(), kept, filler);
        return producer.newMessage().key("item-" + item).value(json.getBytes(StandardCharsets.UTF_8)).sendAsync();
    }
}
