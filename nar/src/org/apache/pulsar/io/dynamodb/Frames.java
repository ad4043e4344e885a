package org.apache.pulsar.io.dynamodb;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.Map;

/** The frames to and from the native process. They are described in {@code src/host/bridge/frame.rs}, the other half. */
final class Frames {
    static final int VERSION = 1;
    static final int READY = 1;
    static final int RECORD = 2;
    static final int ACK = 3;
    static final int FAIL = 4;
    static final int METRICS = 5;
    static final int ERROR = 6;
    static final int OPEN = 16;
    static final int SCHEMA = 17;
    static final int MESSAGE = 18;
    static final int STOP = 19;

    private Frames() { }

    interface Body {
        void write(DataOutputStream out) throws IOException;
    }

    static byte[] frame(int type, Body body) {
        try {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream(512);
            DataOutputStream out = new DataOutputStream(bytes);
            out.writeInt(0);
            out.writeByte(type);
            body.write(out);
            byte[] frame = bytes.toByteArray();
            ByteBuffer.wrap(frame).putInt(frame.length - 4);
            return frame;
        } catch (IOException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    static void put(DataOutputStream out, byte[] bytes) throws IOException {
        out.writeInt(bytes == null ? -1 : bytes.length);
        out.write(bytes == null ? new byte[0] : bytes);
    }

    static void put(DataOutputStream out, String text) throws IOException {
        put(out, text == null ? null : text.getBytes(UTF_8));
    }

    static void put(DataOutputStream out, Map<String, String> properties) throws IOException {
        out.writeInt(properties.size());
        for (Map.Entry<String, String> property : properties.entrySet()) {
            put(out, property.getKey());
            put(out, property.getValue());
        }
    }

    static byte[] bytes(DataInputStream in) throws IOException {
        int length = in.readInt();
        return length < 0 ? null : in.readNBytes(length);
    }

    static String text(DataInputStream in) throws IOException {
        byte[] bytes = bytes(in);
        return bytes == null ? null : new String(bytes, UTF_8);
    }

    static Map<String, String> properties(DataInputStream in) throws IOException {
        Map<String, String> properties = new LinkedHashMap<>();
        for (int left = in.readInt(); left > 0; left--) {
            properties.put(text(in), text(in));
        }
        return properties;
    }
}
