// Lines that belong together, close to each other: what a puzzle tells besides its instruction.

export const Told = ({ lines }: { lines: string[] }) => (
  <div>
    {lines.map((line, index) => (
      <p key={index} style={{ margin: "0.2em 0" }}>
        {line}
      </p>
    ))}
  </div>
);
