import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.MessageId;
import org.apache.pulsar.client.api.PulsarClient;
import org.apache.pulsar.client.api.Reader;

/** {@code Whole URL TOPIC PROPERTY} reads the first message as Pulsar's client puts it together, and prints its size, its hash, whether it came in chunks, its key and one of its properties. */
public final class Whole {
    public static void main(String[] arguments) throws Exception {
        try (PulsarClient client = PulsarClient.builder().serviceUrl(arguments[0]).build();
                Reader<byte[]> reader = client.newReader().topic(arguments[1]).startMessageId(MessageId.earliest).create()) {
            Message<byte[]> message = reader.readNext(60, TimeUnit.SECONDS);
            byte[] data = message.getData();
            boolean inChunks = message.getMessageId().getClass().getSimpleName().startsWith("Chunk");
            System.out.println(data.length + " " + Arrays.hashCode(data) + " " + inChunks + " " + message.getKey() + " " + message.getProperty(arguments[2]));
        }
    }
}
