package org.apache.pulsar.io.dynamodb;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.io.File;
import java.io.IOException;
import java.io.OutputStream;
import java.net.URL;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.functions.api.BaseContext;
import org.slf4j.Logger;
import org.slf4j.MDC;

/** The native process that does the work: started, talked to, watched, and ended with its owner. Its own end is the instance's, with its last words. */
final class NativeProcess {
    private static final String PATH_VARIABLE = "PULSAR_IO_DYNAMODB_NATIVE_PATH";
    private static final long SILENCE_MS = Long.getLong("pulsar.io.dynamodb.silence.ms", 60_000);

    /** What comes from the process and is not about itself; called by one thread. */
    interface Handler {
        void frame(int type, DataInputStream body) throws IOException;
    }

    interface Work {
        void run() throws Exception;
    }

    /** Bytes of messages that may be unanswered. */
    final int credit;
    private final BaseContext context;
    private final Handler handler;
    private final Process process;
    private final BlockingQueue<byte[]> out = new LinkedBlockingQueue<>();
    private final CompletableFuture<Integer> ready = new CompletableFuture<>();
    private volatile boolean closing;
    private volatile boolean listening;
    private volatile long heard = System.nanoTime();
    private volatile String lastLine = "none";
    private volatile String lastWords;

    /** Starts it; errors with its own words where it does not come up. */
    NativeProcess(String kind, Object connector, Map<String, Object> configs, Map<String, Object> secrets, BaseContext context,
                  Handler handler) throws Exception {
        this.context = context;
        this.handler = handler;
        process = new ProcessBuilder(executable(), "bridge").start();
        Map<String, Object> resolved = new HashMap<>();
        if (secrets != null) {
            secrets.keySet().forEach(name -> resolved.put(name, context.getSecret(name)));
        }
        byte[] open = Schema.JSON(Object.class).encode(Map.of("kind", kind, "instance", context.getInstanceId(), "connector", connector,
                "configs", configs, "secrets", resolved));
        out.add(new byte[] {Frames.VERSION});
        say(Frames.OPEN, body -> body.write(open));
        daemon("writer", this::write);
        daemon("watch", this::watch);
        Thread log = daemon("log", this::log);
        daemon("reader", () -> end(listen(), log));
        try {
            credit = ready.get();
        } catch (Exception e) {
            process.destroyForcibly();
            throw e;
        }
    }

    Thread daemon(String name, Work work) {
        // It says to Pulsar's log whose lines these are.
        Map<String, String> whose = MDC.getCopyOfContextMap();
        Thread thread = new Thread(() -> {
            try {
                MDC.setContextMap(whose == null ? Map.of() : whose);
                work.run();
            } catch (Exception e) {
                context.getLogger().debug("the thread {} has ended", name, e);
            }
        }, "dynamodb-" + name);
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    /** Never blocks: a client's threads come here. */
    void say(int type, Frames.Body body) {
        out.add(Frames.frame(type, body));
    }

    private void write() throws Exception {
        try (OutputStream to = new BufferedOutputStream(process.getOutputStream(), 1 << 16)) {
            while (process.isAlive()) {
                for (byte[] next = out.poll(1, TimeUnit.SECONDS); next != null; next = out.poll()) {
                    to.write(next);
                }
                to.flush();
            }
        }
    }

    /** Hears the process until it ends or cannot be understood; returns why. */
    private Exception listen() {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(process.getInputStream(), 1 << 16))) {
            listening = true;
            int version = in.read();
            if (version != Frames.VERSION) {
                return new IOException(version < 0 ? "it did not start: is it an executable for this machine?" : "it speaks version "
                        + version + " of the frame protocol, this archive " + Frames.VERSION + ": use the executable of the same archive");
            }
            while (true) {
                DataInputStream body = new DataInputStream(new ByteArrayInputStream(in.readNBytes(in.readInt())));
                heard = System.nanoTime();
                listening = false;
                int type = body.readUnsignedByte();
                switch (type) {
                    case Frames.READY -> ready.complete(body.readInt());
                    case Frames.ERROR -> lastWords = Frames.text(body);
                    case Frames.METRICS -> {
                        for (int left = body.readInt(); left > 0; left--) {
                            context.recordMetric(Frames.text(body), body.readDouble());
                        }
                    }
                    default -> handler.frame(type, body);
                }
                listening = true;
            }
        } catch (Exception e) {
            return e;
        }
    }

    private void end(Exception why, Thread log) throws InterruptedException {
        process.destroyForcibly();
        int code = process.waitFor();
        log.join(1_000);
        String problem = why instanceof EOFException ? "" : why.getMessage() + "; ";
        String words = lastWords != null ? lastWords : problem + "exit code " + code + ", the last line of its log: " + lastLine;
        Exception death = new IOException("The DynamoDB connector's native process has ended: " + words, why);
        if (!ready.completeExceptionally(death) && !closing) {
            context.fatal(death);
        }
    }

    private void watch() throws InterruptedException {
        while (!process.waitFor(1, TimeUnit.SECONDS)) {
            if (listening && System.nanoTime() - heard > TimeUnit.MILLISECONDS.toNanos(SILENCE_MS)) {
                lastWords = "it gave no sign of life for " + SILENCE_MS / 1000 + " s";
                process.destroyForcibly();
            }
        }
    }

    private void log() throws IOException {
        Logger log = context.getLogger();
        try (BufferedReader lines = process.errorReader(UTF_8)) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                lastLine = line;
                // Time, level, text.
                String[] parts = line.trim().split("\\s+", 3);
                switch (parts.length == 3 ? parts[1] : "") {
                    case "ERROR" -> log.error(parts[2]);
                    case "WARN" -> log.warn(parts[2]);
                    case "INFO" -> log.info(parts[2]);
                    case "DEBUG", "TRACE" -> log.debug(parts[2]);
                    default -> log.info(line);
                }
            }
        }
    }

    private static String executable() throws Exception {
        String own = System.getenv(PATH_VARIABLE);
        if (own != null && !own.isBlank()) {
            return own;
        }
        String name = "native/linux-" + System.getProperty("os.arch").replace("aarch64", "arm64") + "/pulsar-io-dynamodb";
        URL found = NativeProcess.class.getClassLoader().getResource(name);
        if (found == null) {
            throw new IOException("the archive has no " + name + "; set " + PATH_VARIABLE + " to an executable for this machine");
        }
        File unpacked = new File(found.toURI());
        // Pulsar unpacks an archive without this permission.
        unpacked.setExecutable(true, false);
        return unpacked.getPath();
    }

    /** Asks it to finish what is under way. */
    void stop() {
        closing = true;
        say(Frames.STOP, body -> { });
    }

    /** Waits for its end, and ends it where it does not: Pulsar gives an instance 10 s. */
    void close() {
        // Whoever stops a thread runtime interrupts it first.
        boolean interrupted = Thread.interrupted();
        try {
            process.waitFor(8, TimeUnit.SECONDS);
        } catch (InterruptedException e) {
            interrupted = true;
        }
        process.destroyForcibly();
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
