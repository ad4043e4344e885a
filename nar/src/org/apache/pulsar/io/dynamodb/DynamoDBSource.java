package org.apache.pulsar.io.dynamodb;

import java.io.DataInputStream;
import java.io.IOException;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.functions.api.Record;
import org.apache.pulsar.io.core.Source;
import org.apache.pulsar.io.core.SourceContext;
import org.apache.pulsar.io.core.annotations.Connector;
import org.apache.pulsar.io.core.annotations.IOType;

/** Publishes the changes of a DynamoDB table. */
@Connector(name = "dynamodb", type = IOType.SOURCE, help = "Publishes the changes of a DynamoDB table",
        configClass = DynamoDBSourceConfig.class)
public class DynamoDBSource implements Source<byte[]> {
    /** What is here may still be withheld when a lease is lost, so not much is. */
    private final BlockingQueue<Change> changes = new ArrayBlockingQueue<>(256);
    private volatile Exception failure;
    private volatile BlockingQueue<byte[]> answers;
    private NativeProcess process;

    @Override
    public void open(Map<String, Object> config, SourceContext context) throws Exception {
        Object guarantees = context.getSourceConfig().getProcessingGuarantees();
        Map<String, Object> open = NativeProcess.open("source", context.getSourceName(), context, guarantees, config,
                context.getSourceConfig().getSecrets());
        open.put("topicName", context.getOutputTopic());
        // With EFFECTIVELY_ONCE the producers of this instance must go with the process: another instance may take its shards.
        boolean restarts = !"EFFECTIVELY_ONCE".equals(String.valueOf(guarantees));
        process = new NativeProcess(open, context, restarts, new Handler());
    }

    private final class Handler implements NativeProcess.Handler {
        @Override
        public void started(int credit, BlockingQueue<byte[]> out) {
            // They come again from this process.
            changes.clear();
            answers = out;
        }

        @Override
        public void frame(int type, DataInputStream body) throws Exception {
            if (type != Frames.RECORD) {
                throw new IOException("a frame of the unknown type " + type + ": use the executable of the same archive");
            }
            changes.put(new Change(answers, body.readLong(), body.readLong(), body.readLong(), Frames.text(body), Frames.text(body),
                    Frames.text(body), Frames.properties(body), Frames.bytes(body)));
        }

        @Override
        public void failed(Exception why) {
            failure = why;
        }
    }

    @Override
    public Record<byte[]> read() throws Exception {
        while (true) {
            Change change = changes.poll(200, TimeUnit.MILLISECONDS);
            if (change != null) {
                return change;
            }
            if (failure != null) {
                throw failure;
            }
        }
    }

    @Override
    public void close() {
        if (process != null) {
            process.stop();
            // Nobody will read them: without an answer the process would wait for it.
            Thread returning = new Thread(this::giveBack, "dynamodb-return");
            returning.setDaemon(true);
            returning.start();
            process.close();
            returning.interrupt();
        }
    }

    private void giveBack() {
        try {
            while (true) {
                changes.take().fail();
            }
        } catch (InterruptedException e) {
            // The process has ended.
        }
    }

    /** One message on its way, answered to the process that it came from. */
    private record Change(BlockingQueue<byte[]> answers, long id, long sequence, long eventTime, String producer, String topic, String key,
                          Map<String, String> properties, byte[] value) implements Record<byte[]> {
        @Override
        public byte[] getValue() {
            return value;
        }

        @Override
        public Optional<String> getKey() {
            return Optional.ofNullable(key);
        }

        @Override
        public Map<String, String> getProperties() {
            return properties;
        }

        @Override
        public Optional<Long> getEventTime() {
            return eventTime < 0 ? Optional.empty() : Optional.of(eventTime);
        }

        @Override
        public Optional<String> getDestinationTopic() {
            return Optional.ofNullable(topic);
        }

        @Override
        public Optional<String> getPartitionId() {
            return Optional.ofNullable(producer);
        }

        @Override
        public Optional<Long> getRecordSequence() {
            return sequence < 0 ? Optional.empty() : Optional.of(sequence);
        }

        @Override
        public void ack() {
            answers.add(Frames.frame(Frames.ACK, out -> out.writeLong(id)));
        }

        @Override
        public void fail() {
            answers.add(Frames.frame(Frames.FAIL, out -> out.writeLong(id)));
        }
    }
}
