package org.apache.pulsar.io.dynamodb;

import java.io.DataInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentNavigableMap;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.schema.GenericObject;
import org.apache.pulsar.common.schema.SchemaInfo;
import org.apache.pulsar.common.schema.SchemaType;
import org.apache.pulsar.functions.api.Record;
import org.apache.pulsar.io.core.Sink;
import org.apache.pulsar.io.core.SinkContext;
import org.apache.pulsar.io.core.annotations.Connector;
import org.apache.pulsar.io.core.annotations.IOType;

/** Writes the messages of topics with any schema to a DynamoDB table. */
@Connector(name = "dynamodb", type = IOType.SINK, help = "Writes the messages of topics to a DynamoDB table",
        configClass = DynamoDBSinkConfig.class)
public class DynamoDBSink implements Sink<GenericObject>, NativeProcess.Handler {
    private static final int MESSAGE_COST = 1024;

    /** What the process has and has not answered, in the order of arrival. */
    private final ConcurrentNavigableMap<Long, Pending> pending = new ConcurrentSkipListMap<>();
    private final Set<Object> schemas = new HashSet<>();
    private SinkContext context;
    private NativeProcess process;
    private BlockingQueue<byte[]> out;
    private Semaphore credit;
    private int allCredit;
    private long lastId;
    private volatile Exception failure;

    private record Pending(Record<GenericObject> message, int cost) { }

    @Override
    public void open(Map<String, Object> config, SinkContext context) throws Exception {
        this.context = context;
        Map<String, Object> open = NativeProcess.open("sink", context.getSinkName(), context,
                context.getSinkConfig().getProcessingGuarantees(), config, context.getSinkConfig().getSecrets());
        open.put("inputs", context.getInputTopics());
        Integer retries = context.getSinkConfig().getMaxMessageRetries();
        open.put("redelivers", retries != null && retries >= 0);
        process = new NativeProcess(open, context, true, this);
    }

    /** Another process gets what the last one has not answered, in the same order. */
    @Override
    public synchronized void started(int bytes, BlockingQueue<byte[]> queue) {
        out = queue;
        schemas.clear();
        if (credit == null) {
            allCredit = bytes;
            credit = new Semaphore(bytes);
        }
        pending.forEach(this::send);
    }

    @Override
    public void frame(int type, DataInputStream body) throws Exception {
        if (type != Frames.ACK && type != Frames.FAIL) {
            throw new IOException("a frame of the unknown type " + type + ": use the executable of the same archive");
        }
        while (body.available() > 0) {
            Pending answered = pending.remove(body.readLong());
            if (answered != null) {
                credit.release(answered.cost);
                if (type == Frames.ACK) {
                    answered.message.ack();
                } else {
                    answered.message.fail();
                }
            }
        }
    }

    @Override
    public void failed(Exception why) {
        failure = why;
        context.fatal(why);
    }

    @Override
    public void write(Record<GenericObject> message) throws Exception {
        int cost = Math.min(allCredit, MESSAGE_COST + message.getMessage().orElseThrow().size());
        while (!credit.tryAcquire(cost, 200, TimeUnit.MILLISECONDS)) {
            if (failure != null) {
                throw failure;
            }
        }
        synchronized (this) {
            Pending next = new Pending(message, cost);
            pending.put(++lastId, next);
            send(lastId, next);
        }
    }

    private void send(long id, Pending sent) {
        Message<GenericObject> message = sent.message.getMessage().orElseThrow();
        tellSchema(message);
        out.add(Frames.frame(Frames.MESSAGE, frame -> {
            frame.writeLong(id);
            Frames.put(frame, message.getMessageId().toByteArray());
            frame.writeLong(message.getPublishTime());
            frame.writeLong(message.getEventTime() > 0 ? message.getEventTime() : -1);
            Frames.put(frame, message.getTopicName());
            Frames.put(frame, message.hasKey() ? message.getKey() : null);
            frame.writeBoolean(message.hasBase64EncodedKey());
            Frames.put(frame, message.hasOrderingKey() ? message.getOrderingKey() : null);
            Frames.put(frame, message.getSchemaVersion());
            Frames.put(frame, message.getProducerName());
            frame.writeLong(message.getSequenceId());
            Frames.put(frame, message.getProperties());
            Frames.put(frame, message.size() == 0 && message.getValue() == null ? null : message.getData());
        }));
    }

    /** Once, before the first message that was written with it. */
    private void tellSchema(Message<GenericObject> message) {
        byte[] version = message.getSchemaVersion();
        if (version == null || !schemas.add(List.of(message.getTopicName(), ByteBuffer.wrap(version)))) {
            return;
        }
        SchemaInfo info = message.getReaderSchema().map(schema -> schema.getSchemaInfo()).orElse(null);
        out.add(Frames.frame(Frames.SCHEMA, frame -> {
            Frames.put(frame, message.getTopicName());
            Frames.put(frame, version);
            Frames.put(frame, (info == null ? SchemaType.NONE : info.getType()).name());
            Frames.put(frame, info == null ? null : info.getSchema());
            Frames.put(frame, info == null ? Map.of() : info.getProperties());
        }));
    }

    @Override
    public void close() {
        if (process != null) {
            process.stop();
            process.close();
        }
    }
}
